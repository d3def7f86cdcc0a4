"""Recipes: a typed, validated configuration that becomes (model, data, training).

`settings` has the fields of all recipes, `families` the table of families, `family` the interface of a family, `build`
the construction of data and model. Only this chapter knows both networks and models, and here strings become objects.
Reading and checking a recipe imports no torch; building does.
"""
