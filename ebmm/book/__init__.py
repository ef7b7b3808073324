"""What only the book needs: figures, sliders, exercises, courses. Nothing outside imports it."""
