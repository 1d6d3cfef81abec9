// HDF5 images in memory, read with distrust and written the way every reader of NIR expects.
#include "io/nir_file.h"

#include <hdf5.h>

#include <algorithm>
#include <memory>
#include <mutex>

#include "io/bytes.h"
#include "io/rehearse.h"

namespace nc {
namespace {

constexpr int most_nested = 16;           // graphs within graphs
constexpr size_t most_objects = 1 << 18;  // groups and datasets of a file, met again when linked
constexpr size_t most_text = 1 << 16;     // bytes of a string
constexpr size_t gzip_ratio = 1032;       // deflate cannot do better (zlib's technical notes)

// An HDF5 identifier, closed by whoever holds it.
class Handle {
 public:
    Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
    ~Handle() {
        if (id_ >= 0) close_(id_);
    }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    operator hid_t() const { return id_; }
    bool ok() const { return id_ >= 0; }

 private:
    hid_t id_;
    herr_t (*close_)(hid_t);
};

// The library prints its errors and may load filters from anywhere; neither while this lives. One
// thread at a time: the library need not be built for more.
class Quiet {
 public:
    Quiet() : lock_(mutex()) {
        H5open();
        H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
        H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
        H5PLget_loading_state(&plugins_);
        H5PLset_loading_state(0);
    }
    ~Quiet() {
        H5PLset_loading_state(plugins_);
        H5Eset_auto2(H5E_DEFAULT, function_, data_);
    }

 private:
    static std::mutex& mutex() {
        static std::mutex one;
        return one;
    }
    std::lock_guard<std::mutex> lock_;
    H5E_auto2_t function_ = nullptr;
    void* data_ = nullptr;
    unsigned plugins_ = 0;
};

// A file that is only memory: its image going in, or nothing.
Handle memory_only() {
    const hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_core(list, 1 << 16, false);
    return {list, H5Pclose};
}

class FileReader {
 public:
    FileReader(const std::string& path, size_t bytes)
        : path_(path), budget_(bytes * gzip_ratio), bytes_(bytes) {}

    NirNode node(hid_t group, const std::string& at, int depth) {
        NirNode out;
        for (const std::string& name : members(group, at)) {
            const std::string here = at + "/" + name;
            const Handle object(H5Oopen(group, name.c_str(), H5P_DEFAULT), H5Oclose);
            if (!object.ok()) refuse_model(path_, here + " cannot be opened");
            const H5I_type_t kind = H5Iget_type(object);
            if (kind == H5I_DATASET) {
                NirField value;
                if (!field(object, here, value))
                    refuse_model(path_, here + " has a type NIR has not");
                if (name == "type")
                    out.type = text(value, here);
                else if (name == "edges")
                    out.edges = edges(value, here);
                else
                    out.fields.emplace(name, std::move(value));
            } else if (kind == H5I_GROUP && name == "metadata") {
                out.metadata = metadata(object, here);
            } else if (kind == H5I_GROUP && name == "nodes") {
                if (depth >= most_nested)
                    refuse_model(path_, here + ": graphs are nested more than " +
                                            std::to_string(most_nested) + " deep");
                for (const std::string& inner : members(object, here)) {
                    const Handle child(H5Gopen2(object, inner.c_str(), H5P_DEFAULT), H5Gclose);
                    if (!child.ok())
                        refuse_model(path_, here + "/" + inner + " is not a node's group");
                    out.nodes.emplace(inner, node(child, here + "/" + inner, depth + 1));
                }
            } else {
                refuse_model(path_, here + " is not a field of a node");
            }
        }
        if (out.type.empty()) refuse_model(path_, at + " has no type: not a node");
        return out;
    }

 private:
    // The names in a group, in alphabetical order. Links out of the file, and soft ones, are
    // refused.
    std::vector<std::string> members(hid_t group, const std::string& at) {
        std::vector<std::string> names;
        struct Seen {
            std::vector<std::string>& names;
            bool hard = true, few = true;
            size_t left;
        } seen{names, true, true, most_objects - objects_};
        const auto visit = [](hid_t, const char* name, const H5L_info_t* link,
                              void* data) -> herr_t {
            auto& s = *static_cast<Seen*>(data);
            s.hard = link->type == H5L_TYPE_HARD;
            s.few = s.names.size() < s.left;
            if (!s.hard || !s.few) return -1;
            s.names.emplace_back(name);
            return 0;
        };
        hsize_t from = 0;
        const herr_t done = H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, &from, visit, &seen);
        if (!seen.hard)
            refuse_model(path_, at + " holds a link that is not to an object of this file");
        if (!seen.few)
            refuse_model(path_,
                         "more than " + std::to_string(most_objects) + " groups and datasets");
        if (done < 0) refuse_model(path_, at + " cannot be listed: the file is damaged");
        objects_ += names.size();
        return names;
    }

    void pay(size_t bytes, const std::string& at) {
        if (bytes > budget_)
            refuse_model(path_, at + " claims more than a file of " + std::to_string(bytes_) +
                                    " bytes can hold");
        budget_ -= bytes;
    }

    // Only what is stored in this file, plain or by gzip, in pieces of a sensible size.
    void check_storage(hid_t data, size_t bytes, const std::string& at) {
        const Handle list(H5Dget_create_plist(data), H5Pclose);
        if (!list.ok()) refuse_model(path_, at + " cannot be read");
        if (H5Pget_external_count(list) != 0)
            refuse_model(path_, at + " is stored in another file");
        const H5D_layout_t layout = H5Pget_layout(list);
        const size_t stored = size_t(H5Dget_storage_size(data));
        if (layout != H5D_COMPACT && layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED)
            refuse_model(path_, at + " has a layout that is not read");
        if (stored > bytes_ || (layout != H5D_CHUNKED && stored < bytes) ||
            (layout == H5D_CHUNKED && stored < bytes / gzip_ratio) || (bytes > 0 && stored == 0))
            refuse_model(path_, at + " is to have " + std::to_string(bytes) + " bytes, " +
                                    std::to_string(stored) + " are stored");
        if (layout == H5D_CHUNKED) {
            hsize_t sizes[H5S_MAX_RANK] = {};
            const int rank = H5Pget_chunk(list, H5S_MAX_RANK, sizes);
            const Handle type(H5Dget_type(data), H5Tclose);
            size_t chunk = type.ok() ? H5Tget_size(type) : 0;
            for (int i = 0; i < rank; ++i)
                if (__builtin_mul_overflow(chunk, size_t(sizes[i]), &chunk)) chunk = SIZE_MAX;
            if (rank < 1 || chunk > std::max(2 * bytes, size_t(1) << 20))
                refuse_model(path_, at + " has pieces larger than itself");
        }
        const int filters = H5Pget_nfilters(list);
        for (int i = 0; i < filters; ++i) {
            unsigned flags = 0, options = 0;
            size_t values = 0;
            const H5Z_filter_t filter =
                H5Pget_filter2(list, unsigned(i), &flags, &values, nullptr, 0, nullptr, &options);
            if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE)
                refuse_model(path_, at + " is packed with filter " + std::to_string(filter) +
                                        ", only gzip and shuffle are read");
        }
    }

    // False when the dataset is of a type that no field has.
    bool field(hid_t data, const std::string& at, NirField& out) {
        const Handle type(H5Dget_type(data), H5Tclose), space(H5Dget_space(data), H5Sclose);
        if (!type.ok() || !space.ok()) refuse_model(path_, at + " cannot be read");
        const H5T_class_t kind = H5Tget_class(type);
        const size_t each = H5Tget_size(type);
        const H5S_class_t extent = H5Sget_simple_extent_type(space);
        const int rank = H5Sget_simple_extent_ndims(space);
        if (rank < 0 || rank > 6 || (extent != H5S_SCALAR && extent != H5S_SIMPLE))
            refuse_model(path_, at + " has no shape of at most 6 sizes");
        std::vector<hsize_t> sizes(size_t(rank), 0);
        H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
        size_t count = 1;
        for (const hsize_t size : sizes) {
            if (__builtin_mul_overflow(count, size_t(size), &count))
                refuse_model(path_, at + " is too large");
            out.shape.push_back(size_t(size));
        }
        size_t bytes = 0;
        if (__builtin_mul_overflow(count, each, &bytes)) refuse_model(path_, at + " is too large");
        const bool variable = kind == H5T_STRING && H5Tis_variable_str(type) > 0;
        if (kind == H5T_STRING && !variable && each > most_text)
            refuse_model(path_, at + " is a string of " + std::to_string(each) + " bytes");
        const bool known =
            (kind == H5T_FLOAT || kind == H5T_INTEGER) ? each <= 8 : kind == H5T_STRING;
        if (!known) return false;
        check_storage(data, bytes, at);
        pay(std::max(bytes, count * 8), at);
        herr_t read = 0;
        if (kind == H5T_STRING) {
            out.values = variable ? variable_strings(data, type, count, at)
                                  : fixed_strings(data, type, count, each, read);
        } else if (kind == H5T_INTEGER) {
            std::vector<int64_t> values(count);
            read = H5Dread(data, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
            out.values = std::move(values);
        } else if (each <= 4) {
            std::vector<float> values(count);
            read = H5Dread(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
            out.values = std::move(values);
        } else {
            std::vector<double> values(count);
            read = H5Dread(data, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
            out.values = std::move(values);
        }
        if (read < 0) refuse_model(path_, at + " cannot be read: the file is damaged");
        return true;
    }

    std::vector<std::string> fixed_strings(hid_t data, hid_t type, size_t count, size_t each,
                                           herr_t& read) {
        const Handle memory(H5Tcopy(type), H5Tclose);
        std::vector<char> text(count * each);
        read = H5Dread(data, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, text.data());
        std::vector<std::string> out;
        for (size_t i = 0; i < count; ++i) {
            const char* begin = text.data() + i * each;
            std::string s(begin, std::find(begin, begin + each, '\0'));
            if (H5Tget_strpad(type) == H5T_STR_SPACEPAD) s.erase(s.find_last_not_of(' ') + 1);
            out.push_back(std::move(s));
        }
        return out;
    }

    // The library asks for each string's memory here, before the string is known to be there.
    struct Memory {
        std::vector<std::unique_ptr<char[]>> blocks;
        size_t left;
    };
    static void* take(size_t bytes, void* of) {
        auto& memory = *static_cast<Memory*>(of);
        if (bytes > most_text || bytes > memory.left) return nullptr;
        memory.left -= bytes;
        memory.blocks.push_back(std::make_unique<char[]>(bytes + 1));
        return memory.blocks.back().get();
    }
    static void keep(void*, void*) {}  // all at once, later

    std::vector<std::string> variable_strings(hid_t data, hid_t type, size_t count,
                                              const std::string& at) {
        Memory memory{{}, budget_};
        const Handle how(H5Pcreate(H5P_DATASET_XFER), H5Pclose), words(H5Tcopy(type), H5Tclose);
        H5Pset_vlen_mem_manager(how, take, &memory, keep, nullptr);
        std::vector<char*> text(count, nullptr);
        if (H5Dread(data, words, H5S_ALL, H5S_ALL, how, static_cast<void*>(text.data())) < 0)
            refuse_model(path_, at + " cannot be read: the file is damaged");
        budget_ = memory.left;
        std::vector<std::string> out;
        for (const char* s : text) out.emplace_back(s != nullptr ? s : "");
        return out;
    }

    std::string text(const NirField& field, const std::string& at) const {
        const auto* words = std::get_if<std::vector<std::string>>(&field.values);
        if (words == nullptr || words->size() != 1) refuse_model(path_, at + " is not a string");
        return words->front();
    }

    std::vector<std::pair<std::string, std::string>> edges(const NirField& field,
                                                           const std::string& at) const {
        const auto* names = std::get_if<std::vector<std::string>>(&field.values);
        const bool none = field.shape.size() >= 1 && field.shape[0] == 0;
        if (!none && (names == nullptr || field.shape.size() != 2 || field.shape[1] != 2))
            refuse_model(path_, at + " are not pairs of names");
        std::vector<std::pair<std::string, std::string>> out;
        for (size_t i = 0; !none && i + 1 < names->size(); i += 2)
            out.emplace_back((*names)[i], (*names)[i + 1]);
        return out;
    }

    // What others keep there may be anything: only plain values are taken.
    std::map<std::string, NirField> metadata(hid_t group, const std::string& at) {
        std::map<std::string, NirField> out;
        for (const std::string& name : members(group, at)) {
            const Handle object(H5Oopen(group, name.c_str(), H5P_DEFAULT), H5Oclose);
            NirField value;
            if (object.ok() && H5Iget_type(object) == H5I_DATASET &&
                field(object, at + "/" + name, value))
                out.emplace(name, std::move(value));
        }
        return out;
    }

    const std::string& path_;
    size_t budget_, bytes_, objects_ = 0;
};

NirNode parse(const std::vector<uint8_t>& file, const std::string& path) {
    const Handle access = memory_only();
    // The library copies the image; the name must not be that of a file.
    H5Pset_file_image(access, const_cast<uint8_t*>(file.data()), file.size());
    const Handle opened(H5Fopen("an image in memory", H5F_ACC_RDONLY, access), H5Fclose);
    if (!opened.ok()) refuse_model(path, "damaged: the HDF5 library cannot open it");
    const Handle root(H5Gopen2(opened, "/", H5P_DEFAULT), H5Gclose);
    H5L_info_t link;
    if (!root.ok() || H5Lget_info(root, "node", &link, H5P_DEFAULT) < 0)
        refuse_model(path, "no NIR graph: /node is missing or damaged");
    if (link.type != H5L_TYPE_HARD) refuse_model(path, "/node is a link, not a graph of this file");
    const Handle group(H5Gopen2(root, "node", H5P_DEFAULT), H5Gclose);
    if (!group.ok()) refuse_model(path, "no NIR graph: /node is not a group");
    NirNode graph = FileReader(path, file.size()).node(group, "/node", 0);
    if (graph.type != "NIRGraph")
        refuse_model(path, "/node is of type '" + graph.type + "', not NIRGraph");
    return graph;
}

// The beginning of a file, and how long it says it is (HDF5 File Format Specification, II.A).
void check_superblock(const std::vector<uint8_t>& file, const std::string& path) {
    static const uint8_t magic[] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    if (file.size() < sizeof magic || !std::equal(std::begin(magic), std::end(magic), file.begin()))
        refuse_model(path, "not an HDF5 file: it does not begin with \\x89HDF");
    const size_t version = file.size() > 8 ? file[8] : 0;
    const size_t at = version < 2 ? (version == 0 ? 40 : 44) : 28, wide = version < 2 ? 13 : 9;
    if (file.size() < at + 8)
        refuse_model(path, "truncated: " + std::to_string(file.size()) + " bytes");
    uint64_t whole = 0;
    for (size_t i = 8; i-- > 0;) whole = whole << 8 | file[at + i];
    if (file[wide] == 8 && whole > file.size())
        refuse_model(path, "truncated: " + std::to_string(file.size()) + " of " +
                               std::to_string(whole) + " bytes");
}

void write_failed(const std::string& name) {
    throw Error("[nir] '" + name + "' could not be written", ErrorKind::model);
}

Handle new_group(hid_t in, const std::string& name) {
    const Handle untimed(H5Pcreate(H5P_GROUP_CREATE), H5Pclose);
    H5Pset_obj_track_times(untimed, false);
    const hid_t id = H5Gcreate2(in, name.c_str(), H5P_DEFAULT, untimed, H5P_DEFAULT);
    if (id < 0) write_failed(name);
    return {id, H5Gclose};
}

void write_field(hid_t group, const std::string& name, const NirField& field) {
    std::vector<hsize_t> sizes(field.shape.begin(), field.shape.end());
    const Handle space(sizes.empty() ? H5Screate(H5S_SCALAR)
                                     : H5Screate_simple(int(sizes.size()), sizes.data(), nullptr),
                       H5Sclose);
    // The same graph gives the same bytes: no times.
    const Handle untimed(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_obj_track_times(untimed, false);
    const Handle words(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(words, H5T_VARIABLE);
    H5Tset_cset(words, H5T_CSET_UTF8);
    const auto put = [&](hid_t stored, hid_t given, const void* values) {
        const Handle data(
            H5Dcreate2(group, name.c_str(), stored, space, H5P_DEFAULT, untimed, H5P_DEFAULT),
            H5Dclose);
        if (!data.ok() || H5Dwrite(data, given, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
            write_failed(name);
    };
    if (const auto* f = std::get_if<std::vector<float>>(&field.values)) {
        put(H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, f->data());
    } else if (const auto* d = std::get_if<std::vector<double>>(&field.values)) {
        put(H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, d->data());
    } else if (const auto* i = std::get_if<std::vector<int64_t>>(&field.values)) {
        put(H5T_STD_I64LE, H5T_NATIVE_INT64, i->data());
    } else {
        std::vector<const char*> pointers;
        for (const std::string& s : std::get<std::vector<std::string>>(field.values))
            pointers.push_back(s.c_str());
        put(words, words, static_cast<const void*>(pointers.data()));
    }
}

void write_node(hid_t group, const NirNode& node) {
    write_field(group, "type", {{}, std::vector<std::string>{node.type}});
    for (const auto& [name, field] : node.fields) write_field(group, name, field);
    if (!node.metadata.empty()) {
        const Handle metadata = new_group(group, "metadata");
        for (const auto& [name, field] : node.metadata) write_field(metadata, name, field);
    }
    if (node.type != "NIRGraph") return;
    std::vector<std::string> names;
    for (const auto& [from, to] : node.edges) {
        names.push_back(from);
        names.push_back(to);
    }
    write_field(group, "edges", {{node.edges.size(), 2}, names});
    const Handle nodes = new_group(group, "nodes");
    for (const auto& [name, child] : node.nodes) write_node(new_group(nodes, name), child);
}

}  // namespace

NirNode parse_nir(const std::vector<uint8_t>& file, const std::string& path) {
    check_superblock(file, path);
    const Quiet quiet;
    // The library is made for honest files: damage at the right place crashes it, or keeps it busy
    // for ever.
    if (!rehearse(file.size(), path, [&] { parse(file, path); }))
        refuse_model(path, "the HDF5 library fails on it: the file is damaged");
    return parse(file, path);
}

std::vector<uint8_t> nir_bytes(const NirNode& graph) {
    const Quiet quiet;
    const Handle access = memory_only();
    const Handle file(H5Fcreate("nir", H5F_ACC_TRUNC, H5P_DEFAULT, access), H5Fclose);
    if (!file.ok()) write_failed("/");
    write_field(file, "version", {{}, std::vector<std::string>{"1.0"}});
    write_node(new_group(file, "node"), graph);
    H5Fflush(file, H5F_SCOPE_GLOBAL);
    const ssize_t size = H5Fget_file_image(file, nullptr, 0);
    if (size <= 0) write_failed("/");
    std::vector<uint8_t> out(static_cast<size_t>(size));
    if (H5Fget_file_image(file, out.data(), out.size()) != size) write_failed("/");
    return out;
}

}  // namespace nc
