"""Recipes: a typed, validated configuration that becomes (model, data, training).

`settings` is what all recipes share, `families` the table of families, `family` what each provides, `build` makes data
and model. It is the only chapter that knows networks and models both, and where strings become objects. Reading and
checking a recipe imports no torch, building does.
"""
