"""Formats in which models leave jensen and come to it, one file each: values and files, nothing printed.

An exporter is a function of a run and a new, empty folder. It fills the folder and returns notes for the user. It
raises `InputError` for the first setting of the run that has no counterpart in the format, before it writes.
"""
