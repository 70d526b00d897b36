"""What the package needs of the machine: files, outputs that are not replaced in silence."""
