"""What the scripts that prepare data share: archives, atomic files, crops, an example."""
