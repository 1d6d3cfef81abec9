// Random changes of training images: what is drawn here, the image kernel and auto_augment carry
// out.
#pragma once

#include "datasets/dataset.h"

namespace nc {

// One sample's crop, flip and cutout; draws in that order, and only what the options ask for.
kernels::Augment draw_augment(const AugmentOptions&, const Shape& sample, uint32_t source, Random&);

// The crop and flip alone, as bytes [H, W, C]; out does not overlap the images.
void crop_bytes(const uint8_t* images, const kernels::Augment&, const Shape& sample, uint8_t* out);

// One draw of the CIFAR-10 policy (Cubuk et al., AutoAugment, CVPR 2019) on one image of 3-channel
// bytes [H, W, 3]; out does not overlap the image.
void auto_augment(const uint8_t* image, const Shape& sample, Random&, uint8_t* out);

// The operations of the policy, byte for byte those of the Python Imaging Library. level 0 .. 9
// spans the paper's ranges: shear to 0.3, translation to 150 / 331 of the side, rotation to 30
// degrees, posterising to 4 bits, solarising to threshold 0, and color .. brightness a factor up to
// 0.9 from 1. negative mirrors those but posterising and solarising. What comes into the picture
// from outside is grey 128.
enum class ImageOp : int {
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    rotate,
    color,
    posterize,
    solarize,
    contrast,
    sharpness,
    brightness,
    auto_contrast,
    equalize,
    invert
};
void apply_image_op(ImageOp, int level, bool negative, const uint8_t* image, const Shape& sample,
                    uint8_t* out);

}  // namespace nc
