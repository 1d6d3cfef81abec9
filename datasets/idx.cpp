// IDX files (LeCun, Cortes, Burges: THE MNIST DATABASE).
#include "datasets/idx.h"

#include "io/bytes.h"

namespace nc {

IdxArray parse_idx(const std::vector<uint8_t>& file, const std::string& path) {
    Reader reader(file.data(), file.size(), path);
    const uint32_t magic = reader.u32be();
    const uint32_t type = magic >> 8, rank = magic & 0xff;
    constexpr uint32_t unsigned_byte = 0x08, last_type = 0x0e;
    if (type > unsigned_byte && type <= last_type)
        throw Error("[" + path + "] IDX type " + std::to_string(type) +
                        " is not supported, only unsigned bytes (8)",
                    ErrorKind::data);
    if (type != unsigned_byte || rank == 0 || rank > Shape::max_rank)
        throw Error("[" + path + "] not an IDX file: magic " + std::to_string(magic),
                    ErrorKind::data);
    IdxArray out;
    for (uint32_t axis = 0; axis < rank; ++axis) out.sizes.push_back(reader.u32be());
    // Shape refuses products that overflow.
    const size_t wanted = Shape(out.sizes).elements();
    if (wanted != reader.left())
        reader.fail((wanted > reader.left() ? "truncated: sizes " : "bytes left over: sizes ") +
                    Shape(out.sizes).str() + " but " + std::to_string(reader.left()) + " bytes");
    const uint8_t* values = reader.take(wanted);
    out.bytes.assign(values, values + wanted);
    return out;
}

LabelledImages read_idx_pair(const std::string& images_path, const std::string& labels_path,
                             int classes) {
    constexpr size_t largest = size_t(1) << 32;
    IdxArray images = parse_idx(read_maybe_gzip(images_path, largest), images_path);
    const IdxArray labels = parse_idx(read_maybe_gzip(labels_path, largest), labels_path);
    const auto fail = [](const std::string& path, const std::string& what) {
        throw Error("[" + path + "] " + what, ErrorKind::data);
    };
    if (images.sizes.size() != 3 || images.sizes[1] == 0 || images.sizes[2] == 0)
        fail(images_path, "images [N, H, W] wanted, found " + Shape(images.sizes).str());
    if (labels.sizes.size() != 1)
        fail(labels_path, "labels [N] wanted, found " + Shape(labels.sizes).str());
    const size_t n = images.sizes[0];
    if (labels.sizes[0] != n)
        fail(labels_path, std::to_string(labels.sizes[0]) + " labels, but " + std::to_string(n) +
                              " images in " + images_path);
    if (n == 0) fail(images_path, "no images");

    LabelledImages out;
    out.sample = Shape{images.sizes[1], images.sizes[2], 1};
    out.classes = classes;
    out.images = std::move(images.bytes);
    out.labels.resize(n);
    for (size_t i = 0; i < n; ++i) {
        if (labels.bytes[i] >= classes)
            fail(labels_path, "label " + std::to_string(labels.bytes[i]) + " of sample " +
                                  std::to_string(i) + " is not below " + std::to_string(classes));
        out.labels[i] = labels.bytes[i];
    }
    return out;
}

}  // namespace nc
