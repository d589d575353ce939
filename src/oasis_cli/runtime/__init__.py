"""What a network runs on: devices and their memory."""
