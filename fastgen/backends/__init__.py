"""What turns a batch into results. One file or folder each."""
