"""The drawn world as a benchmark of image generation: captions, their true pictures, and a program that judges."""
