"""The result of a segmentation: what it is, how it is drawn and measured, and how it is written.

* The result: `panoptic` (`Panoptic`), `segment`, `taxonomy`; `reused_ids` colours things with few ids.
* Drawn and measured: `render`, `measure`, `outlines`; `runs` makes both fast.
* In the formats of other tools: `exports`, `formats`, `extra_files` (--also) and `collect` (its files of a folder).
* Folder of images: `results` writes it; `folder`, `journal` and `parts` let several processes share it.
* Folder of a clip: `clip_results` writes it; `tracks` follows the objects, `ctc` writes the Cell Tracking Challenge's.
"""
