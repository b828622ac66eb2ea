// One loop, compiled for several instruction sets, chosen when the program starts.
//
// Why:     these loops run over every parameter of a stage for every microbatch, and the baseline has 128-bit vectors only.
//          The files that use it are compiled without contraction to fused multiply-add, and every sum has its lanes written
//          out, so that all clones give the same bits.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define STAGECOACH_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define STAGECOACH_CLONES
#endif
