// Random changes of training images: what is drawn here, the image kernel and auto_augment carry
// out.
#pragma once

#include "datasets/dataset.h"

namespace nc {

// One sample's crop, flip and cutout; draws in that order, and only what the options ask for.
kernels::Augment draw_augment(const AugmentOptions&, const Shape& sample, uint32_t source, Random&);

// One draw of the CIFAR-10 policy (Cubuk et al., AutoAugment, CVPR 2019) on one image of 3-channel
// bytes [H, W, 3]; out does not overlap the image.
void auto_augment(const uint8_t* image, const Shape& sample, Random&, uint8_t* out);

}  // namespace nc
