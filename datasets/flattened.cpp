// Samples [H, W, C] as vectors [C * H * W].
#include "datasets/flattened.h"

namespace nc {
namespace {

class Flattened : public Dataset {
 public:
    explicit Flattened(std::unique_ptr<Dataset> maps) : maps_(std::move(maps)) {}
    size_t size() const override { return maps_->size(); }
    Shape sample_shape() const override { return {maps_->sample_shape().elements()}; }
    int classes() const override { return maps_->classes(); }
    int steps() const override { return maps_->steps(); }
    int32_t label(size_t i) const override { return maps_->label(i); }
    Batch batch(Compute& compute, const std::vector<uint32_t>& indices,
                const AugmentOptions& options, Random& random) const override {
        Batch out = maps_->batch(compute, indices, options, random);
        const size_t lead = out.temporal ? 2 : 1, channels = maps_->sample_shape().back();
        std::vector<size_t> sizes(out.x.shape().begin(), out.x.shape().begin() + lead);
        sizes.push_back(sample_shape().elements());
        if (channels > 1) {
            const Tensor from = out.x.to_host();
            Tensor to(from.shape());
            const float* x = from.data<float>();
            float* y = to.data<float>();
            const size_t area = sizes.back() / channels;
            for (size_t first = 0; first < from.elements(); first += sizes.back())
                for (size_t p = 0; p < area; ++p)
                    for (size_t c = 0; c < channels; ++c)
                        y[first + c * area + p] = x[first + p * channels + c];
            out.x = to.to(*compute.allocator);
        }
        out.x = out.x.reshape(Shape(sizes));
        return out;
    }

 private:
    std::unique_ptr<Dataset> maps_;
};

}  // namespace

std::unique_ptr<Dataset> flattened(std::unique_ptr<Dataset> maps) {
    return std::make_unique<Flattened>(std::move(maps));
}

}  // namespace nc
