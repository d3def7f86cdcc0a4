"""Readers: one file a format, from a path to a `Reading`, all examples of a source in its own order.

`read` chooses among `digits`, `idx`, `numpy_files`, `image_folder` and `parquet`; `reading` is what each returns,
`layout` says which arrays are images, `image` and `encoded` decode pictures, `columns` are those of Arrow tables.
"""
