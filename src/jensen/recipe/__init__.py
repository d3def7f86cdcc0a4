"""Recipes: a typed, validated configuration that becomes (model, data, training).

`settings` says what can be chosen; `build`, `vae` and `diffusion` make it. It is the only chapter that knows networks
and models both, and where strings become objects. Reading and checking a recipe imports no torch, building does.
"""
