"""What happens to pixels between decoding and encoding: geometry, light, effects, blending."""
