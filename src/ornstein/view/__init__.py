"""Pictures and animations."""
