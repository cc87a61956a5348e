"""Chats: their layouts, their rendering by templates, and where in it the assistant speaks."""
