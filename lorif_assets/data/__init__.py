"""From users' files to token ids: shards, readers by format, columns, chats, tokenization."""
