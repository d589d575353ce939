"""See two or more videos beside each other: a page, a video or a sheet."""
