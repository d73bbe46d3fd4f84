"""Edits of a scene: changed maps, drawn shapes, files joined to scenes."""
