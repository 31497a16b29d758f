"""What the sub-commands of `cxr` do. The words of the command line are for `cxr.parsers`."""
