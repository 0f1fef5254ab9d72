"""Parts of self-contained HTML pages: shell, style, curves, attention maps, images, machine. Data in, HTML out."""
