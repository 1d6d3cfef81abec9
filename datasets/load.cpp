// Data sets by name: where their files lie and how they are normalised.
#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "datasets/camera.h"
#include "datasets/cifar.h"
#include "datasets/events.h"
#include "datasets/idx.h"

namespace nc {
namespace {

namespace fs = std::filesystem;

constexpr int digits = 10;  // classes of MNIST and its relatives

// The folder <root>/<name> of the first root that has it: --data alone when given, else NC_DATA,
// else where Debian's packages put data sets.
std::string data_folder(const DataRequest& request) {
    std::vector<std::string> roots;
    if (!request.root.empty()) {
        roots = {request.root};
    } else {
        if (const char* root = std::getenv("NC_DATA"); root && *root) roots.push_back(root);
        roots.push_back("/usr/share/datasets");
    }
    std::string tried;
    for (const auto& root : roots) {
        const fs::path folder = fs::path(root) / request.name;
        std::error_code ignored;
        if (fs::is_directory(folder, ignored)) return folder.string();
        tried += (tried.empty() ? "" : ", ") + folder.string();
    }
    const std::string hint =
        request.name == "fashion-mnist" ? "apt-get install dataset-fashion-mnist, or " : "";
    throw Error(
        "[load_data] " + request.name + " is in none of: " + tried, ErrorKind::data,
        hint + "datasets/fetch.sh " + request.name + " --to DIR, then NC_DATA=DIR or --data DIR");
}

std::string require_file(const std::string& folder, const std::string& name,
                         const std::string& dataset) {
    const std::string path = find_file(folder, name);
    if (path.empty())
        throw Error("[load_data] " + folder + "/" + name + " (or .gz) is missing", ErrorKind::data,
                    "datasets/fetch.sh " + dataset);
    return path;
}

struct Normalisation {
    std::vector<float> mean, std;
};

std::unique_ptr<Dataset> to_dataset(LabelledImages images, const DataSets& sets) {
    return image_dataset(std::move(images.images), std::move(images.labels), images.sample,
                         images.classes, sets.mean, sets.std);
}

DataSets load_images(const DataRequest& request, const Normalisation& own, LabelledImages train,
                     LabelledImages test) {
    if (!(train.sample == test.sample))
        throw Error("[load_data] " + request.name + ": training images are " + train.sample.str() +
                        ", test images " + test.sample.str(),
                    ErrorKind::data);
    if (!request.framing.empty())
        throw Error("[load_data] " + request.name + " has no recordings to frame by " +
                    request.framing);
    DataSets out;
    out.mean = request.mean.empty() ? own.mean : request.mean;
    out.std = request.std.empty() ? own.std : request.std;
    out.train = to_dataset(std::move(train), out);
    out.test = to_dataset(std::move(test), out);
    return out;
}

LabelledImages mnist_part(const DataRequest& request, const std::string& prefix) {
    const std::string folder = data_folder(request);
    const std::string images = require_file(folder, prefix + "-images-idx3-ubyte", request.name);
    const std::string labels = require_file(folder, prefix + "-labels-idx1-ubyte", request.name);
    return read_idx_pair(images, labels, digits);
}

DataSets load_mnist(const DataRequest& request, const Normalisation& own) {
    LabelledImages train = mnist_part(request, "train");
    return load_images(request, own, std::move(train), mnist_part(request, "t10k"));
}

RecordingSets nmnist(const DataRequest& request) {
    constexpr size_t all_train = 60000, all_test = 10000;
    const fs::path folder = data_folder(request);
    RecordingSets out = {nmnist_source((folder / "Train").string()),
                         nmnist_source((folder / "Test").string()), digits, ""};
    const size_t train = out.train.labels.size(), test = out.test.labels.size();
    if (train != all_train || test != all_test)
        out.note =
            "subset: " + std::to_string(train) + " + " + std::to_string(test) + " recordings";
    return out;
}

RecordingSets simulated_nmnist(DataRequest request) {
    constexpr uint64_t train_seed = 1, test_seed = 2;
    request.name = "mnist";
    RecordingSets out = {camera_source(mnist_part(request, "train"), train_seed),
                         camera_source(mnist_part(request, "t10k"), test_seed), digits, ""};
    out.note = "simulated: MNIST's digits before a model of an event camera, " +
               std::to_string(out.train.labels.size()) + " + " +
               std::to_string(out.test.labels.size()) + " recordings";
    return out;
}

RecordingSets synthetic_events() {
    constexpr size_t train = 2000, test = 400;
    constexpr uint64_t train_seed = 1, test_seed = 2;
    return {synthetic_source(train, train_seed), synthetic_source(test, test_seed),
            synthetic_classes,
            "simulated: moving shapes, " + std::to_string(train) + " + " + std::to_string(test) +
                " recordings"};
}

// Counts are not normalised.
DataSets load_events(const DataRequest& request) {
    if (!request.mean.empty() || !request.std.empty())
        throw Error("[load_data] " + request.name +
                    " holds counts of events: mean and std do not apply");
    constexpr int default_steps = 16;
    const Framing framing =
        request.framing.empty()
            ? Framing{Framing::Kind::tonic_bins, request.T > 0 ? request.T : default_steps}
            : parse_framing(request.framing);
    const RecordingSets recordings = load_recordings(request.name, request.root);
    EventDataSets sets =
        event_datasets(recordings.train, recordings.test, recordings.classes, framing);
    DataSets out;
    out.train = std::move(sets.train);
    out.test = std::move(sets.test);
    out.framing = framing.str();
    out.note = recordings.note;
    return out;
}

}  // namespace

std::string find_file(const std::string& folder, const std::string& name) {
    for (const char* suffix : {"", ".gz"}) {
        const std::string path = (fs::path(folder) / (name + suffix)).string();
        std::error_code ignored;
        if (fs::exists(path, ignored)) return path;
    }
    return "";
}

std::vector<std::string> event_dataset_names() {
    return {"nmnist", "nmnist-simulated", "synthetic-events"};
}

std::vector<std::string> dataset_names() {
    std::vector<std::string> out = {"mnist", "fashion-mnist", "cifar10"};
    for (const std::string& name : event_dataset_names()) out.push_back(name);
    return out;
}

RecordingSets load_recordings(const std::string& name, const std::string& root) {
    DataRequest request;
    request.name = name;
    request.root = root;
    if (name == "nmnist") return nmnist(request);
    if (name == "nmnist-simulated") return simulated_nmnist(request);
    if (name == "synthetic-events") return synthetic_events();
    throw Error("[load_recordings] '" + name + "' is no data set of recordings", ErrorKind::data,
                suggestion(name, event_dataset_names()));
}

DataSets load_data(const DataRequest& request) {
    if (request.T < 0) throw Error("[load_data] T " + std::to_string(request.T) + " is below 1");
    if (request.name == "mnist") return load_mnist(request, {{0.1307f}, {0.3081f}});
    if (request.name == "fashion-mnist") return load_mnist(request, {{0.2860f}, {0.3530f}});
    if (request.name == "cifar10") {
        const std::string folder = data_folder(request);
        const Normalisation own = {{0.4914f, 0.4822f, 0.4465f}, {0.2470f, 0.2435f, 0.2616f}};
        LabelledImages train = read_cifar10(folder, true);
        return load_images(request, own, std::move(train), read_cifar10(folder, false));
    }
    const auto events = event_dataset_names();
    if (std::find(events.begin(), events.end(), request.name) != events.end())
        return load_events(request);
    throw Error("[load_data] unknown data set '" + request.name + "'", ErrorKind::data,
                suggestion(request.name, dataset_names()));
}

}  // namespace nc
