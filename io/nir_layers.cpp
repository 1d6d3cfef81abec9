// NIR's convolutions and pools, from their fields.
#include "io/nir_parts.h"

namespace nc {
namespace {

// Of 'same' on one axis of a weight [out, in, h, w]. What does not halve goes behind: a tap of
// zeros in front lets both sides be alike.
size_t same_padding(Tensor& weight, size_t axis, size_t dilation, const Fields& fields) {
    const size_t taps = weight.shape()[axis], all = dilation * (taps - 1);
    if (all % 2 == 0) return all / 2;
    if (dilation != 1) fields.refuse("padding 'same' of an even kernel with dilation");
    const Shape wide = weight.shape().with(axis, taps + 1);
    const size_t inside = axis == 2 ? wide[3] : 1;
    Tensor out = Tensor::full<float>(wide, 0);
    const float* from = weight.data<float>();
    for (size_t n = 0; n < weight.elements(); ++n) {
        const size_t outer = n / (taps * inside), rest = n % (taps * inside);
        out.data<float>()[outer * (taps + 1) * inside + inside + rest] = from[n];
    }
    weight = out;
    return (all + 1) / 2;
}

}  // namespace

Conv nir_convolution(Fields& fields, bool one_d) {
    Conv conv;
    conv.weight = fields.tensor("weight", one_d ? 3 : 4);
    const Shape& s = conv.weight.shape();
    if (one_d) conv.weight = conv.weight.reshape({s[0], s[1], 1, s[2]});
    if (fields.has("bias") && !fields.get("bias").shape.empty())
        conv.bias = fields.tensor("bias", 1);
    fields.allow("bias");
    const size_t axes = one_d ? 1 : 2;
    const auto stride = fields.sizes("stride", axes, 1);
    const auto dilation = fields.sizes("dilation", axes, 1);
    ops::ConvOptions& o = conv.options;
    o.groups = fields.sizes("groups", 1, 1)[0];
    o.stride_w = stride.back();
    o.dilation_w = dilation.back();
    if (!one_d) {
        o.stride_h = stride[0];
        o.dilation_h = dilation[0];
    }
    const NirField& padding = fields.get("padding");
    if (!std::holds_alternative<std::vector<std::string>>(padding.values)) {
        const auto sizes = fields.sizes("padding", axes, 0);
        o.pad_w = sizes.back();
        if (!one_d) o.pad_h = sizes[0];
        return conv;
    }
    const std::string rule = *fields.word(fields.node().fields, "padding");
    if (rule == "valid") return conv;
    if (rule != "same") fields.refuse("padding '" + rule + "' is not same, valid or sizes");
    if (o.stride_h != 1 || o.stride_w != 1)
        fields.refuse("padding 'same' has no meaning with a stride");
    o.pad_h = same_padding(conv.weight, 2, o.dilation_h, fields);
    o.pad_w = same_padding(conv.weight, 3, o.dilation_w, fields);
    return conv;
}

ops::PoolOptions nir_pooling(Fields& fields) {
    const auto kernel = fields.sizes("kernel_size", 2, 1), stride = fields.sizes("stride", 2, 1),
               padding = fields.sizes("padding", 2, 0);
    if (padding[0] > kernel[0] / 2 || padding[1] > kernel[1] / 2)
        fields.refuse("padding is more than half of kernel_size");
    return {kernel[0], kernel[1], stride[0], stride[1], padding[0], padding[1]};
}

}  // namespace nc
