"""Chat models, one module for each kind of `alignment.config.schema.judges.ChatEntry`; `open_chat` opens one."""
