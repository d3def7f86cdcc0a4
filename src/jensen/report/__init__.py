"""The report: pages, pictures and terminal tables of finished values. This chapter calls no model."""
