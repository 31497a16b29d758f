"""The words of each `cxr` command: a parser, and a handler that imports what it needs once it is called."""
