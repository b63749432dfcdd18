"""One conversation: its process, its history, its turns and the tools they run."""
