"""Reading the files that Wan2.1 is published in."""
