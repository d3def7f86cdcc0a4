"""Tables: columns with types, and the matrix of numbers that a model sees. Imports no torch."""
