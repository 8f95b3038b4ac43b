"""The proof: what is known of each element, the interpreter, and its verdict."""
