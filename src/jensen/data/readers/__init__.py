"""Readers: one file a format, from a source to a `Reading`: all its examples in its own order.

`read` chooses among `digits`, `idx`, `numpy_files`, `memory`, `image_folder` and `parquet`. `reading` is what each
returns. `array_names` says which array holds what, `layout` which arrays are images. `image` and `encoded` decode
images, `columns` are those of Arrow tables. `kinds` names the formats that no reader takes.
"""
