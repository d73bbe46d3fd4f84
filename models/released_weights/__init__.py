"""The authors' checkpoint keys mapped to ours, one file per method family."""
