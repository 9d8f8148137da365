"""What `lock` refuses before any work, though every setting by itself is valid."""
