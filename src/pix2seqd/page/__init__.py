"""The page of `pix2seqd serve`: see it, correct it, export it. Only `page`, `clip` and `server` know gradio."""
