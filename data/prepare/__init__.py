"""What the scripts that prepare data share: archives, whole files, the source of an example."""
