"""The second design of the blocks' kernels: one launch forward and one backward for all layers of a stack of blocks.

`common.cuh` begins with a page on how they work; `forward.cu`, `backward.cu` and `weights.cu` are the kernels. In Python:

    layout.py        the order in which weights travel, and the sizes on which Python and CUDA must agree
    pack_triton.py   writes the weights in that order
    build.py         from source to machine code, by NVRTC
    driver.py        tensor maps and launches, by CUDA's driver
    blocks.py        which blocks are covered; the whole as one autograd function
"""
