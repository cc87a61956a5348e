"""The evaluation page: how faithful the scores are, its content, its pictures and its page."""
