"""The network: a low-quality clip in, a high-quality clip out. Read oasis.py first."""
