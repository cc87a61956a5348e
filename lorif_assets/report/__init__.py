"""The attribution report: its content, its pictures and its page."""
