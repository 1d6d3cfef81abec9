// What a state_dict's pickle may name, the tensors it describes, and the state_dict inside it.
#include "io/pt.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "io/elements.h"
#include "io/pickle.h"
#include "io/zip.h"

namespace nc {
namespace {

using Kind = PickleValue::Kind;

const std::string whole_model_hint =
    "save the weights alone, `torch.save(model.state_dict(), \"weights.pt\")`, or bring the "
    "network along, `torch.onnx.export(model, x, \"model.onnx\")`";
constexpr size_t longest_pickle = size_t(1) << 26;
constexpr size_t longest_name = 1024;

// What a pickle may name, as numbers.
enum Known : int64_t { rebuild_tensor, rebuild_parameter, plain, first_storage };
constexpr std::pair<const char*, const char*> storages[] = {
    {"FloatStorage", "F32"},     {"DoubleStorage", "F64"}, {"HalfStorage", "F16"},
    {"BFloat16Storage", "BF16"}, {"LongStorage", "I64"},   {"IntStorage", "I32"},
    {"ShortStorage", "I16"},     {"CharStorage", "I8"},    {"ByteStorage", "U8"},
    {"BoolStorage", "BOOL"}};

int64_t allow(std::string_view module, std::string_view name) {
    const auto is = [&](std::string_view m, std::string_view n) {
        return module == m && name == n;
    };
    if (is("collections", "OrderedDict") || is("collections", "Counter"))
        return Pickle::pickle_dict;
    if (is("torch._utils", "_rebuild_tensor_v2")) return rebuild_tensor;
    if (is("torch._utils", "_rebuild_parameter")) return rebuild_parameter;
    // What bytes are in protocol 2, and what else stands in checkpoints; no tensor needs them.
    if (is("torch", "Size") || is("torch", "device") || is("_codecs", "encode")) return plain;
    if (module == "torch")
        for (size_t i = 0; i < std::size(storages); ++i)
            if (name == storages[i].first) return int64_t(first_storage + i);
    return -1;
}

// A tensor as its pickle describes it: counts of elements.
struct View {
    const ElementType* type;
    std::string storage;
    size_t stored;  // elements in the storage
    size_t offset;
    Shape shape;
    std::vector<size_t> strides;
};

class TorchFile {
 public:
    explicit TorchFile(const Source& source)
        : path_(source.path()),
          zip_(open(source)),
          pickle_bytes_(read_pickle()),
          pickle_(pickle_bytes_, path_ + ": " + folder_ + "data.pkl", allow, whole_model_hint) {}

    StateDict read() {
        StateDict out;
        const PickleValue& dict = state_dict(out.note);
        std::set<std::string_view> seen;
        for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
            const PickleValue& key = pickle_[dict.items[i]];
            if (!is_tensor(dict.items[i + 1])) continue;  // a module's extra state
            if (key.text.size() > longest_name)
                refuse_model(path_, "a name of " + std::to_string(key.text.size()) + " bytes");
            const std::string name(key.text);
            if (!seen.insert(key.text).second)
                refuse_model(path_, "tensor '" + name + "' is there twice");
            out.tensors.emplace_back(name, tensor(dict.items[i + 1], name));
        }
        return out;
    }

 private:
    // The formats that are not a zip archive of torch.save, by what they begin with.
    static Zip open(const Source& source) {
        const std::string& path = source.path();
        const auto head = source.bytes(0, size_t(std::min<uint64_t>(source.size(), 16)));
        const auto starts = [&](std::string_view text) {
            return head.size() >= text.size() &&
                   std::memcmp(head.data(), text.data(), text.size()) == 0;
        };
        if (starts("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"))
            refuse_model(path, "PyTorch's format from before version 1.6, which is not read",
                         "write it again: `torch.save(torch.load(\"" + path +
                             "\", map_location=\"cpu\"), \"weights.pt\")`");
        if (!starts("PK"))
            refuse_model(path, "not a PyTorch file: no zip archive as torch.save() writes it",
                         "`torch.save(model.state_dict(), \"weights.pt\")` writes one");
        return Zip(source, ErrorKind::model);
    }

    // Everything lies in one folder, named after the file that was written.
    std::vector<uint8_t> read_pickle() {
        const ZipEntry* found = nullptr;
        for (const ZipEntry& entry : zip_.entries()) {
            const size_t slash = entry.name.find('/');
            const std::string inside =
                entry.name.substr(slash == std::string::npos ? 0 : slash + 1);
            if (inside == "constants.pkl" || inside == "models/model.json")
                refuse_model(path_, "a compiled program (TorchScript or torch.export), not weights",
                             whole_model_hint);
            if (inside == "data.pkl" && !found) {
                found = &entry;
                folder_ = entry.name.substr(0, entry.name.size() - inside.size());
            }
        }
        if (!found)
            refuse_model(path_, "a zip archive without data.pkl: not a PyTorch file",
                         whole_model_hint);
        if (found->size > longest_pickle)
            refuse_model(path_, found->name + " has " + std::to_string(found->size) +
                                    " bytes, more than " + std::to_string(longest_pickle));
        if (const ZipEntry* order = zip_.find(folder_ + "byteorder"))
            if (const auto text = content(*order);
                std::string(text.begin(), text.end()) != "little")
                refuse_model(path_, "written on a big-endian machine, which is not read");
        return content(*found);
    }

    // torch.save() can be told to leave checksums out: they are 0 then.
    std::vector<uint8_t> content(const ZipEntry& entry) const {
        if (entry.method != 0)
            refuse_model(path_, entry.name + " is compressed: torch.save() stores");
        return zip_.read(entry, size_t(1) << 34, entry.crc != 0);
    }

    // --- Looking for the state_dict ---

    bool is_call(const PickleValue& value, int64_t number, size_t least) const {
        return value.kind == Kind::call && value.integer == number &&
               pickle_[value.items[0]].items.size() >= least;
    }
    bool is_tensor(uint32_t index) const {
        const PickleValue& value = pickle_[index];
        return value.kind == Kind::call && value.integer != plain;
    }
    using Named = std::vector<std::pair<std::string_view, const PickleValue*>>;

    // How many of its values are tensors; 0 unless all keys are names.
    size_t tensors_in(const PickleValue& dict) {
        if (const auto at = counted_.find(&dict); at != counted_.end()) return at->second;
        size_t& count = counted_[&dict];
        for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
            if (pickle_[dict.items[i]].kind != Kind::text) return count = 0;
            count += is_tensor(dict.items[i + 1]);
        }
        return count;
    }

    // Of this dict and the dicts in it, the one that holds tensors and nothing else, by the usual
    // names first; else this one, when it holds a tensor at all.
    const PickleValue& state_dict(std::string& note) {
        const std::string saves = "a state_dict is needed: names and tensors";
        const PickleValue* at = &pickle_.root();
        std::string inside;
        for (int depth = 0; depth < 8; ++depth) {
            if (at->kind != Kind::dict)
                refuse_model(path_, "no dict of tensors; " + saves, whole_model_hint);
            const size_t own = tensors_in(*at);
            if (own > 0 && own == at->items.size() / 2) return *at;
            Named full, dicts;
            for (size_t i = 0; i + 1 < at->items.size(); i += 2) {
                const PickleValue &key = pickle_[at->items[i]], &value = pickle_[at->items[i + 1]];
                if (key.kind != Kind::text || value.kind != Kind::dict) continue;
                const std::string_view name = key.text.substr(0, longest_name);
                if (tensors_in(value) > 0) full.emplace_back(name, &value);
                dicts.emplace_back(name, &value);
            }
            if (full.empty() && own > 0) return *at;
            const bool deeper = full.empty() && dicts.size() == 1 && dicts[0].second != at;
            if (!deeper && full.empty())
                refuse_model(path_, "no tensors under names; " + saves, whole_model_hint);
            const auto [name, chosen] = deeper ? dicts[0] : choose(full);
            inside.append(inside.empty() ? "" : ".").append(name);
            note = "the weights are under '" + inside + "'";
            if (full.size() > 1) note += "; not read: " + listed(full, name);
            if (!deeper) return *chosen;
            at = chosen;
        }
        refuse_model(path_, "no state_dict within eight dicts in each other", whole_model_hint);
    }

    Named::value_type choose(const Named& full) const {
        for (const char* usual : {"state_dict", "model_state_dict", "model_state", "model", "net",
                                  "network", "weights", "params", "module"})
            for (const auto& candidate : full)
                if (candidate.first == usual) return candidate;
        if (full.size() == 1) return full[0];
        refuse_model(path_, "several dicts of tensors: " + listed(full, ""),
                     "save the one that is meant alone");
    }
    static std::string listed(const Named& dicts, std::string_view without) {
        std::string out;
        size_t count = 0;
        for (const auto& [name, value] : dicts) {
            if (name == without) continue;
            if (++count > 8) return out + ", ..";
            out.append(out.empty() ? "'" : ", '").append(name).append("'");
        }
        return out;
    }

    // --- Tensors ---

    [[noreturn]] void wrong(const std::string& name, const std::string& what) const {
        refuse_model(path_, "tensor '" + name + "': " + what, whole_model_hint);
    }
    size_t count(uint32_t index, const std::string& name, const char* what) const {
        const PickleValue& value = pickle_[index];
        if (value.kind != Kind::integer || value.integer < 0)
            wrong(name, std::string(what) + " is not a count");
        return size_t(value.integer);
    }
    std::vector<size_t> counts(uint32_t index, const std::string& name, const char* what) const {
        const PickleValue& value = pickle_[index];
        if (value.kind != Kind::sequence) wrong(name, std::string(what) + " is not a tuple");
        std::vector<size_t> out;
        if (value.items.size() > 64) wrong(name, "more than 64 axes");
        for (const uint32_t item : value.items) out.push_back(count(item, name, what));
        return out;
    }

    View view(uint32_t index, const std::string& name) const {
        const PickleValue* value = &pickle_[index];
        // A parameter is (tensor, requires grad, hooks).
        if (is_call(*value, rebuild_parameter, 1))
            value = &pickle_[pickle_[value->items[0]].items[0]];
        if (!is_call(*value, rebuild_tensor, 6)) wrong(name, "not a plain tensor");
        // (storage, offset, sizes, strides, requires grad, hooks[, flags such as conj])
        const auto& words = pickle_[value->items[0]].items;
        if (words.size() > 6) {
            const PickleValue& flags = pickle_[words[6]];
            if (flags.kind != Kind::none && !(flags.kind == Kind::dict && flags.items.empty()))
                wrong(name, "it has flags, which are not read");
        }
        const PickleValue& persistent = pickle_[words[0]];
        if (persistent.kind != Kind::persistent) wrong(name, "it has no storage");
        // ("storage", its class, key, device, elements)
        const auto& id = pickle_[persistent.items[0]].items;
        if (id.size() != 5 || pickle_[id[0]].text != "storage" ||
            pickle_[id[1]].kind != Kind::global || pickle_[id[1]].integer < first_storage ||
            pickle_[id[2]].kind != Kind::text)
            wrong(name, "its storage is not one of torch.save()");
        View out;
        out.type = element_type(storages[pickle_[id[1]].integer - first_storage].second);
        out.storage = pickle_[id[2]].text.substr(0, longest_name);
        out.stored = count(id[4], name, "the storage's size");
        out.offset = count(words[1], name, "offset");
        const auto sizes = counts(words[2], name, "a size");
        out.strides = counts(words[3], name, "a stride");
        if (out.strides.size() != sizes.size())
            wrong(name, std::to_string(sizes.size()) + " sizes, but " +
                            std::to_string(out.strides.size()) + " strides");
        try {
            out.shape = Shape(sizes);
        } catch (const Error& e) {
            wrong(name, e.what());
        }
        return out;
    }

    // Its storage's bytes, after checking that every element lies inside.
    const std::vector<uint8_t>& storage_of(const View& v, const std::string& name) {
        auto at = storages_.find(v.storage);
        if (at == storages_.end()) {
            const ZipEntry* entry = zip_.find(folder_ + "data/" + v.storage);
            if (!entry) wrong(name, "its storage data/" + v.storage + " is not in the file");
            at = storages_.emplace(v.storage, content(*entry)).first;
            stored_bytes_ += at->second.size();
        }
        const size_t have = at->second.size() / v.type->bytes;
        if (v.stored > have)
            wrong(name, "its storage data/" + v.storage + " has " + std::to_string(have) +
                            " elements, not " + std::to_string(v.stored));
        size_t left = v.stored;  // elements from the first one read to the storage's end
        const auto take = [&](size_t steps, size_t stride) {
            if (stride > 0 && steps > (left - 1) / stride) return false;
            left -= steps * stride;
            return true;
        };
        bool inside = left > 0 && take(v.offset, 1);
        for (size_t axis = 0; inside && axis < v.strides.size(); ++axis)
            inside = take(v.shape[axis] - 1, v.strides[axis]);
        if (!inside)
            wrong(name,
                  "it reaches outside its storage of " + std::to_string(v.stored) + " elements");
        // Strides of 0 repeat elements without end.
        const size_t n = v.shape.elements();
        const bool few = n <= v.stored * 8 + 65536;
        if (few) made_bytes_ += n * v.type->bytes;
        if (!few || made_bytes_ > stored_bytes_ * 8 + (1 << 20))
            wrong(name, "it repeats a storage of " + std::to_string(v.stored) + " elements as " +
                            v.shape.str());
        return at->second;
    }

    Tensor tensor(uint32_t index, const std::string& name) {
        if (const auto at = made_.find(index); at != made_.end()) return at->second;
        const View v = view(index, name);
        const bool empty = v.shape.elements() == 0;
        const Tensor out =
            empty ? Tensor(v.shape, v.type->dtype)
                  : decode(*v.type, v.shape, contiguous(v, storage_of(v, name)).data());
        return made_[index] = out;
    }

    static std::vector<uint8_t> contiguous(const View& v, const std::vector<uint8_t>& storage) {
        const size_t size = v.type->bytes, rank = v.shape.rank();
        std::vector<uint8_t> out(v.shape.elements() * size);
        std::vector<size_t> index(rank, 0);
        size_t at = v.offset;
        for (size_t i = 0; i < out.size(); i += size) {
            std::memcpy(out.data() + i, storage.data() + at * size, size);
            for (size_t axis = rank; axis-- > 0;) {
                at += v.strides[axis];
                if (++index[axis] < v.shape[axis]) break;
                at -= v.strides[axis] * v.shape[axis];
                index[axis] = 0;
            }
        }
        return out;
    }

    std::string path_, folder_;
    Zip zip_;
    std::vector<uint8_t> pickle_bytes_;
    Pickle pickle_;
    std::map<std::string, std::vector<uint8_t>> storages_;
    std::map<const PickleValue*, size_t> counted_;  // tensors_in of a dict
    std::map<uint32_t, Tensor> made_;               // by the value that describes it
    size_t stored_bytes_ = 0, made_bytes_ = 0;
};

}  // namespace

StateDict load_pt(const Source& source) {
    return TorchFile(source).read();
}

}  // namespace nc
