"""Pix2Seq-D: panoptic segmentation of images and videos by bit diffusion (Chen et al. 2022, arXiv 2210.06366)."""
