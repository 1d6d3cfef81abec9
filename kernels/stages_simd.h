// What the vector files of the stages share: where a kernel lies, panels' sizes, which file makes
// which stage. Everything is static, once per instruction set.
#pragma once

#include "kernels/spike_simd.h"
#include "kernels/stages.h"

namespace nc::kernels::NC_ISA {

static constexpr size_t panel = lanes == 16 ? 128 : 64;

// The kernel rows and columns of an output pixel that lie inside the image.
struct Window {
    size_t y, x;         // of the kernel's corner in the image; wrapped where it lies outside
    size_t left, right;  // columns of the image under the kernel (no dilation)
    size_t first_input;  // of column `left` in a kernel row
    Window(const ConvShape& s, size_t pixel) {
        y = pixel / s.out_w() * s.stride_h - s.pad_h;
        const size_t corner = pixel % s.out_w() * s.stride_w;  // in the padded image
        x = corner - s.pad_w;
        const size_t skipped = corner < s.pad_w ? s.pad_w - corner : 0;
        left = corner + skipped - s.pad_w;
        right = corner + s.kw < s.pad_w ? 0 : corner + s.kw - s.pad_w;
        if (right > s.w) right = s.w;
        if (left > right) left = right;
        first_input = skipped * s.cin;
    }
};

// stages_neurons_simd.cpp
decltype(Stages::fire) stages_fire();
decltype(IntegerStages::fire) integer_stages_fire();

}  // namespace nc::kernels::NC_ISA
