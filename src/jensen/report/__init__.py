"""The report: values shown as a page, as pictures, and as tables on a terminal. No model is called here."""
