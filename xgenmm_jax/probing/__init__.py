"""Looking inside a loaded model: what `notebooks/probe.ipynb` calls. Every function gives numbers or an image."""
