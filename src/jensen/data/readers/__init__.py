"""Readers: one file per format. A reader turns a source into a `Reading`: all examples in the order of the source.

`read` chooses one of the readers `digits`, `idx`, `numpy_files`, `memory`, `image_folder` and `parquet`. `reading`
defines the result of a reader. `array_names` finds examples, labels and splits among named arrays, `layout` finds
images among arrays. `image` and `encoded` decode images, `columns` reads columns of Arrow tables. `kinds` recognises
unsupported formats.
"""
