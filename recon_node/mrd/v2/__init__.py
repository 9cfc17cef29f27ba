"""MRD version 2: yardl's binary encoding, read and written by the schema that stands in the stream.

`schema` resolves it to types, `decode` and `encode` turn types into functions, `header` and `items` translate
records to and from what the rest of the node knows, and `source` reads a stream as a scan.
"""
