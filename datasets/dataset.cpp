// Images as batches, subsets and the validation split.
#include "datasets/dataset.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "datasets/augment.h"
#include "datasets/streams.h"

namespace nc {
namespace {

void check_labels(const char* op, const std::vector<int32_t>& labels, int classes) {
    for (const int32_t label : labels)
        if (label < 0 || label >= classes)
            throw Error(std::string("[") + op + "] label " + std::to_string(label) + " of " +
                            std::to_string(classes) + " classes",
                        ErrorKind::data);
}

class ImageDataset : public Dataset {
 public:
    ImageDataset(const std::vector<uint8_t>& images, std::vector<int32_t> labels,
                 const Shape& sample, int classes, const std::vector<float>& mean,
                 const std::vector<float>& std)
        : labels_(std::move(labels)), sample_(sample), classes_(classes) {
        const auto fail = [](const std::string& what) {
            throw Error("[image_dataset] " + what, ErrorKind::data);
        };
        if (sample.rank() != 3) fail("samples are [H, W, C], not " + sample.str());
        if (images.size() != labels_.size() * sample.elements())
            fail(std::to_string(images.size()) + " bytes for " + std::to_string(labels_.size()) +
                 " images " + sample.str());
        check_labels("image_dataset", labels_, classes);
        const size_t channels = sample[2];
        if (mean.size() != channels || std.size() != channels)
            fail(std::to_string(mean.size()) + " means and " + std::to_string(std.size()) +
                 " deviations for " + std::to_string(channels) + " channels");
        std::vector<float> scale, shift;
        for (size_t c = 0; c < channels; ++c) {
            if (!(std[c] > 0)) fail("deviation " + std::to_string(std[c]) + " is not positive");
            scale.push_back(float(1 / (255 * double(std[c]))));
            shift.push_back(float(-double(mean[c]) / double(std[c])));
        }
        host_ = {Tensor::from(images, Shape{images.size()}), Tensor::from(scale, Shape{channels}),
                 Tensor::from(shift, Shape{channels})};
    }

    size_t size() const override { return labels_.size(); }
    Shape sample_shape() const override { return sample_; }
    int classes() const override { return classes_; }
    int32_t label(size_t i) const override { return labels_.at(i); }

    Batch batch(Compute& compute, const std::vector<uint32_t>& indices,
                const AugmentOptions& options, Random& random) const override {
        const size_t n = indices.size();
        Batch out;
        out.x = compute.empty(sample_.with_leading(n));
        Tensor drawn({n * sizeof(kernels::Augment)}, DType::u8);  // on the host
        auto* samples = static_cast<kernels::Augment*>(drawn.raw());
        Tensor changed;
        if (options.auto_augment) {
            if (sample_[2] != 3)
                throw Error("[image_dataset] AutoAugment needs 3 channels, not " + sample_.str(),
                            ErrorKind::usage);
            changed = Tensor(sample_.with_leading(n), DType::u8);
        }
        std::vector<uint8_t> cropped(options.auto_augment ? sample_.elements() : 0);
        for (size_t i = 0; i < n; ++i) {
            out.labels.push_back(label(indices[i]));
            samples[i] = draw_augment(options, sample_, indices[i], random);
            if (!options.auto_augment) continue;
            // The policy sees the cropped picture; what is left to the kernel is the cutout.
            crop_bytes(host_.images.data<uint8_t>(), samples[i], sample_, cropped.data());
            auto_augment(cropped.data(), sample_, random,
                         changed.data<uint8_t>() + i * sample_.elements());
            samples[i].source = int32_t(i);
            samples[i].y = samples[i].x = samples[i].flip = 0;
        }
        drawn = drawn.to(*compute.allocator);
        const Resident here = resident_on(compute, !changed.defined());
        const Tensor images = changed.defined() ? changed.to(*compute.allocator) : here.images;
        compute.table->image.augment(compute.queue, images.data<uint8_t>(),
                                     static_cast<const kernels::Augment*>(drawn.raw()),
                                     here.scale.data<float>(), here.shift.data<float>(),
                                     out.x.data<float>(), n, sample_[0], sample_[1], sample_[2]);
        compute.check("image_dataset");
        return out;
    }

 private:
    // What the image kernel reads: images [N, H, W, C] and x = byte * scale + shift.
    struct Resident {
        Tensor images, scale, shift;
    };

    // The images are brought to a device once, when they are first read there.
    Resident resident_on(const Compute& compute, bool with_images) const {
        if (compute.on_host()) return host_;
        const std::lock_guard lock(mutex_);
        Resident& found = elsewhere_[compute.allocator];
        if (!found.scale.defined()) {
            found.scale = host_.scale.to(*compute.allocator);
            found.shift = host_.shift.to(*compute.allocator);
        }
        if (with_images && !found.images.defined())
            found.images = host_.images.to(*compute.allocator);
        return found;
    }

    std::vector<int32_t> labels_;
    Shape sample_;
    int classes_;
    Resident host_;
    mutable std::mutex mutex_;
    mutable std::map<const Allocator*, Resident> elsewhere_;
};

class VectorDataset : public Dataset {
 public:
    VectorDataset(const Tensor& x, std::vector<int32_t> labels, int classes)
        : x_(x), labels_(std::move(labels)), classes_(classes) {
        if (x.shape().rank() != 2 || x.shape()[0] != labels_.size())
            throw Error("[vector_dataset] samples are [N, F] with N = " +
                            std::to_string(labels_.size()) + " labels, not " + x.shape().str(),
                        ErrorKind::data);
        check_labels("vector_dataset", labels_, classes);
    }

    size_t size() const override { return labels_.size(); }
    Shape sample_shape() const override { return x_.shape().without_leading(); }
    int classes() const override { return classes_; }
    int32_t label(size_t i) const override { return labels_.at(i); }
    Batch batch(Compute& compute, const std::vector<uint32_t>& indices,
                const AugmentOptions& options, Random&) const override {
        if (options.any())
            throw Error(
                "[vector_dataset] vectors are no images: nothing can be cropped, flipped "
                "or moved",
                ErrorKind::usage);
        const size_t width = x_.shape()[1];
        Tensor x({indices.size(), width});
        Batch out;
        for (const uint32_t i : indices) {
            std::copy_n(x_.host_data<float>() + i * width, width,
                        x.data<float>() + out.labels.size() * width);
            out.labels.push_back(label(i));
        }
        out.x = x.to(*compute.allocator);
        return out;
    }

 private:
    Tensor x_;
    std::vector<int32_t> labels_;
    int classes_;
};

class Subset : public Dataset {
 public:
    Subset(const Dataset& whole, std::vector<uint32_t> indices)
        : whole_(whole), indices_(std::move(indices)) {
        for (const uint32_t i : indices_)
            if (i >= whole.size())
                throw Error(
                    "[subset] sample " + std::to_string(i) + " of " + std::to_string(whole.size()),
                    ErrorKind::data);
    }
    size_t size() const override { return indices_.size(); }
    Shape sample_shape() const override { return whole_.sample_shape(); }
    int classes() const override { return whole_.classes(); }
    int steps() const override { return whole_.steps(); }
    int32_t label(size_t i) const override { return whole_.label(indices_.at(i)); }
    Batch batch(Compute& compute, const std::vector<uint32_t>& indices,
                const AugmentOptions& options, Random& random) const override {
        std::vector<uint32_t> mapped;
        for (const uint32_t i : indices) mapped.push_back(indices_.at(i));
        return whole_.batch(compute, mapped, options, random);
    }

 private:
    const Dataset& whole_;
    std::vector<uint32_t> indices_;
};

}  // namespace

std::unique_ptr<Dataset> image_dataset(std::vector<uint8_t> images, std::vector<int32_t> labels,
                                       const Shape& sample, int classes, std::vector<float> mean,
                                       std::vector<float> std) {
    return std::make_unique<ImageDataset>(images, std::move(labels), sample, classes, mean, std);
}

std::unique_ptr<Dataset> vector_dataset(const Tensor& x, std::vector<int32_t> labels, int classes) {
    return std::make_unique<VectorDataset>(x, std::move(labels), classes);
}

std::unique_ptr<Dataset> subset(const Dataset& whole, std::vector<uint32_t> indices) {
    return std::make_unique<Subset>(whole, std::move(indices));
}

std::unique_ptr<Dataset> drawn(const Dataset& data, size_t samples, uint64_t seed) {
    auto chosen = Random(seed, streams::shuffle).permutation(uint32_t(data.size()));
    if (samples > 0 && samples < chosen.size()) chosen.resize(samples);
    return subset(data, std::move(chosen));
}

Split validation_split(size_t size, uint64_t seed) {
    constexpr size_t large = 50000, share = 5000;
    const size_t held_out = size >= large ? share : size < 2 ? 0 : std::max<size_t>(1, size / 10);
    const auto order = Random(seed, streams::split).permutation(uint32_t(size));
    Split out;
    out.train.assign(order.begin(), order.end() - ptrdiff_t(held_out));
    out.validation.assign(order.end() - ptrdiff_t(held_out), order.end());
    return out;
}

}  // namespace nc
