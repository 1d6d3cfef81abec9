// CIFAR-10 (Krizhevsky, 2009), binary version.
#include "datasets/cifar.h"

#include "io/bytes.h"

namespace nc {

void parse_cifar10(const std::vector<uint8_t>& file, const std::string& path, LabelledImages& out) {
    constexpr size_t pixels = 32 * 32, channels = 3, record = 1 + pixels * channels;
    constexpr int classes = 10;
    if (file.empty() || file.size() % record != 0)
        throw Error("[" + path + "] " + std::to_string(file.size()) +
                        " bytes: not a whole number of " + std::to_string(record) +
                        "-byte CIFAR-10 records",
                    ErrorKind::data);
    const size_t n = file.size() / record, before = out.labels.size();
    out.sample = Shape{32, 32, channels};
    out.classes = classes;
    out.labels.reserve(before + n);
    out.images.resize((before + n) * pixels * channels);
    uint8_t* to = out.images.data() + before * pixels * channels;
    for (size_t i = 0; i < n; ++i) {
        const uint8_t* from = file.data() + i * record;
        if (*from >= classes)
            throw Error("[" + path + "] label " + std::to_string(*from) + " of record " +
                            std::to_string(i) + " is not below 10",
                        ErrorKind::data);
        out.labels.push_back(*from++);
        for (size_t p = 0; p < pixels; ++p)
            for (size_t c = 0; c < channels; ++c) *to++ = from[c * pixels + p];
    }
}

LabelledImages read_cifar10(const std::string& folder, bool training) {
    LabelledImages out;
    const auto add = [&](const std::string& name) {
        const std::string path = find_file(folder, name);
        if (path.empty())
            throw Error("[cifar10] " + folder + "/" + name + " (or .gz) is missing",
                        ErrorKind::data, "datasets/fetch.sh cifar10");
        constexpr size_t largest = size_t(1) << 30;
        parse_cifar10(read_maybe_gzip(path, largest), path, out);
    };
    if (!training) add("test_batch.bin");
    for (int batch = 1; training && batch <= 5; ++batch)
        add("data_batch_" + std::to_string(batch) + ".bin");
    return out;
}

}  // namespace nc
