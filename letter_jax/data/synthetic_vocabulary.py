"""The vocabulary of the synthetic store: departments, categories, product types and phrases that describe them."""

# {department: {category (uses): {product type: (materials; features)}}}
SHELVES = {
  'Kitchen': {
    'Baking (sourdough, birthday cakes, weekend pastries)': {
      'loaf pan': 'aluminised steel, silicone, stoneware; browns evenly to the edges, releases without greasing',
      'rolling pin': 'beech wood, marble, steel; rolls true without flour sticking, has no handles in the way',
      'cooling rack': 'chromed steel, stainless steel; nests with the other sizes, stands high enough for steam',
      'mixing bowl': 'stoneware, borosilicate glass, melamine; does not skid while whisking, is marked in cups',
    },
    'Coffee (filter coffee, flat whites, slow breakfasts)': {
      'coffee grinder': 'brushed steel, walnut; keeps the grind uniform, is quiet at six in the morning',
      'pour-over dripper': 'ceramic, borosilicate glass, copper; drains evenly, fits mugs and carafes',
      'milk frother': 'brushed steel, matt plastic; foams oat milk too, rinses clean under the tap',
      'gooseneck kettle': 'brushed steel, copper; pours in a thin steady stream, holds the temperature for an hour',
    },
    'Knives (chopping vegetables, filleting fish, carving roasts)': {
      'chef knife': 'carbon steel, stainless steel, damascus steel; takes a keen edge, balances at the bolster',
      'paring knife': 'carbon steel, stainless steel; fits small hands, does not stain with lemon',
      'honing rod': 'ceramic, diamond-coated steel; brings back an edge in ten strokes, stands on its tip',
      'cutting board': 'walnut, bamboo, end-grain maple; has a juice groove, is kind to edges',
    },
  },
  'Garden': {
    'Seeds (raised beds, balconies, kitchen gardens)': {
      'tomato seed packet': 'organic, heirloom; ripens even in short summers, resists late blight',
      'salad seed packet': 'organic, pelleted; grows back after each cut, tolerates half shade',
      'wildflower mix': 'native, perennial; feeds bees until autumn, comes back every year',
      'herb seed packet': 'organic, heirloom; germinates within ten days, grows on a window sill',
    },
    'Hand Tools (planting bulbs, weeding, pruning roses)': {
      'garden trowel': 'forged steel, stainless steel; does not bend in clay, is engraved with planting depths',
      'hand fork': 'forged steel, stainless steel; lifts roots whole, has a handle of oiled ash',
      'pruning shears': 'tool steel, forged aluminium; cuts without crushing, can be taken apart and sharpened',
      'dibber': 'ash wood, brass-tipped beech; makes holes of equal depth, feels smooth in the palm',
    },
    'Watering (seedlings, hanging baskets, greenhouses)': {
      'watering can': 'galvanised steel, recycled plastic; waters gently enough for seedlings, pours without dripping',
      'drip kit': 'rubber, recycled plastic; saves half the water, runs from a tap or a barrel',
      'hose nozzle': 'brass, anodised aluminium; turns from mist to jet, does not leak at the joint',
      'rain barrel': 'recycled plastic, oak; survives frost, connects to any downpipe',
    },
  },
  'Workshop': {
    'Woodworking (joinery, box making, fitting drawers)': {
      'bench plane': 'ductile iron, bronze; arrives flat and sharp, keeps its setting',
      'chisel': 'tool steel, white paper steel; holds its edge in oak, takes a mallet without splitting',
      'marking gauge': 'brass, rosewood; scribes a crisp line, locks with one thumb',
      'dovetail saw': 'spring steel, brass-backed steel; starts without skipping, leaves a narrow kerf',
    },
    'Fasteners (decking, shelves, furniture repair)': {
      'box of wood screws': 'zinc-plated steel, stainless steel, brass; needs no pilot hole, drives without stripping',
      'set of wall anchors': 'nylon, zinc alloy; holds in plasterboard, grips before the screw is tight',
      'box of hex bolts': 'stainless steel, galvanised steel; does not rust outdoors, comes with washers and nuts',
      'set of thread inserts': 'brass, stainless steel; gives wood a metal thread, screws in with a hex key',
    },
    'Measuring (machining, cabinet making, tiling)': {
      'digital caliper': 'stainless steel, carbon fibre; reads millimetres and inches, switches itself off',
      'combination square': 'hardened steel, cast iron; is true to a hair, has etched marks that do not wear',
      'spirit level': 'cast aluminium, walnut and brass; survives a fall, can be read from above',
      'tape measure': 'steel, fibreglass; stands out three metres, locks at any length',
    },
  },
  'Music': {
    'Guitar (fingerstyle, rehearsal rooms, small stages)': {
      'set of guitar strings': 'phosphor bronze, nickel, nylon; stays in tune after bending, keeps its brightness',
      'guitar capo': 'aluminium, zinc alloy; clamps without buzzing, goes on with one hand',
      'guitar strap': 'leather, woven cotton; spreads the weight, does not slip off the button',
      'instrument cable': 'oxygen-free copper, silver-plated copper; is shielded against hum, coils without kinks',
    },
    'Recording (podcasts, vocals, home studios)': {
      'condenser microphone': 'die-cast zinc, aluminium; captures a whisper, adds no noise of its own',
      'audio interface': 'aluminium, steel; runs from a laptop, has a direct monitor with no delay',
      'pop filter': 'nylon mesh, perforated steel; tames sharp consonants, stays where it is bent to',
      'pair of studio headphones': 'velour, leather; stays comfortable for hours, lets no click leak out',
    },
    'Percussion (warming up, school bands, jam sessions)': {
      'pair of drum sticks': 'hickory, maple, oak; is matched by pitch and weight, does not splinter',
      'practice pad': 'natural rubber, silicone; rebounds like a tuned snare, spares the neighbours',
      'hand drum': 'goatskin, birch; keeps its tone in humid rooms, answers to fingertips',
      'set of cymbal felts': 'wool felt, synthetic felt; stops the rattle, lets the cymbal swing freely',
    },
  },
  'Outdoors': {
    'Camping (long-distance trails, family camping, bike trips)': {
      'gas stove': 'titanium, aluminium; boils a litre in four minutes, lights in the wind',
      'camp lantern': 'recycled nylon, aluminium; lasts three nights, dims to a glow',
      'sleeping mat': 'recycled nylon, closed-cell foam; keeps warm at minus ten, packs to the size of a bottle',
      'cooking pot': 'hard-anodised aluminium, titanium; has a lid that strains, holds the stove inside',
    },
    'Climbing (sport routes, gyms, alpine ridges)': {
      'chalk bag': 'waxed canvas, recycled nylon; closes tight, stays open when needed',
      'quickdraw': 'forged aluminium, dyneema; clips with gloves on, does not snag on the bolt',
      'belay device': 'forged aluminium, steel; runs smoothly with thin ropes, brakes by itself',
      'climbing rope': 'dry-treated nylon, recycled nylon; feeds without twists, sheds water and dust',
    },
    'Cycling (commuting, gravel rides, touring)': {
      'bike light': 'anodised aluminium, polycarbonate; charges over USB, can be seen from the side',
      'tyre lever': 'glass-filled nylon, steel core; never pinches the tube, clips to a spoke',
      'roll of handlebar tape': 'cork, textured leather; stays grippy in rain, dampens cobbles',
      'pannier bag': 'waxed canvas, recycled polyester; clicks on with one hand, keeps out a downpour',
    },
  },
  'Crafts': {
    'Knitting (socks, cardigans, baby blankets)': {
      'skein of yarn': 'merino wool, alpaca, organic cotton; does not pill, can be washed at thirty degrees',
      'circular needle': 'bamboo, stainless steel; has a smooth join, lets the cable lie flat',
      'set of stitch markers': 'brass, enamelled steel; opens with one finger, never snags the wool',
      'row counter': 'olive wood, recycled plastic; clicks softly, hangs around the neck',
    },
    'Sewing (dressmaking, quilts, mending jeans)': {
      'pair of fabric scissors': 'tempered steel, titanium-coated steel; cuts to the very tip, suits both hands',
      'spool of thread': 'mercerised cotton, polyester, silk; does not fray in the machine, keeps its colour',
      'seam ripper': 'tool steel, brass; slides under tight stitches, has a cap that stays on',
      'quilting ruler': 'acrylic, stainless steel; shows the bias at a glance, does not slide on cloth',
    },
    'Drawing (portraits, urban sketching, comics)': {
      'set of graphite pencils': 'cedar, incense wood; sharpens to a long point, runs from silver to black',
      'sketchbook': 'cotton paper, recycled paper; lies flat when open, takes a light wash',
      'kneaded eraser': 'natural rubber, soft vinyl; lifts highlights, leaves no crumbs',
      'set of ink pens': 'pigment ink, dye ink; does not bleed through, dries before the hand follows',
    },
  },
  'Home': {
    'Bedding (warm sleepers, guest rooms, winter nights)': {
      'duvet cover': 'washed linen, cotton percale, sateen; softens with each wash, buttons inside',
      'pillowcase': 'washed linen, cotton percale, silk; stays cool in summer, closes with a deep flap',
      'fitted sheet': 'cotton percale, jersey; keeps its corners, dries without ironing',
      'wool blanket': 'lambswool, merino wool; warms without weight, is woven in a single piece',
    },
    'Lighting (reading, dining tables, home offices)': {
      'desk lamp': 'powder-coated steel, brass; throws no glare on the page, turns in every direction',
      'pendant shade': 'opal glass, rattan, porcelain; spreads a soft circle, hides the bulb from below',
      'dimmer switch': 'brass, matt plastic; dims down to a candle, does not hum',
      'filament bulb': 'clear glass, amber glass; gives true colours, lasts for ten years',
    },
    'Cleaning (bathrooms, wooden floors, kettles)': {
      'scrub brush': 'coconut fibre, recycled bristle; gets into grout, can be composted',
      'floor mop': 'microfibre, cotton; leaves no streaks, wrings out without bending',
      'bottle of descaler': 'citric acid, lactic acid; dissolves limescale in minutes, smells of nothing',
      'bar of dish soap': 'olive oil, coconut oil; cuts grease in cold water, is gentle on hands',
    },
  },
  'Pets': {
    'Dogs (puppies, long walks, training)': {
      'dog leash': 'climbing rope, bridle leather; shines in headlights, has a clip that cannot jam',
      'chew toy': 'natural rubber, olive wood; survives strong jaws, can be filled with treats',
      'dog bed': 'waxed cotton, memory foam; has a washable cover, supports old hips',
      'treat pouch': 'waxed cotton, silicone; opens with one hand, wipes clean inside',
    },
    'Cats (kittens, indoor cats, rainy days)': {
      'scratching post': 'sisal, corrugated board; does not tip over, lasts longer than the sofa',
      'cat tunnel': 'wool felt, recycled polyester; folds away in seconds, makes no rustling at night',
      'feather wand': 'birch, bamboo; flutters like a bird, has a line that resists teeth',
      'litter scoop': 'stainless steel, recycled plastic; sifts in one pass, hangs on its own hook',
    },
    'Aquarium (planted tanks, nano tanks, goldfish)': {
      'aquarium filter': 'porous ceramic, sponge; keeps the water clear, spares shrimps',
      'bottle of plant fertiliser': 'mineral, organic; greens up pale leaves, feeds no algae',
      'algae scraper': 'stainless steel, acrylic; reaches into corners, does not scratch the glass',
      'water test': 'liquid reagent, paper strip; is read in five minutes, covers six values',
    },
  },
}

BRAND_STARTS = (
  'Alder',
  'Bram',
  'Calder',
  'Dun',
  'Elm',
  'Fen',
  'Gale',
  'Harrow',
  'Iver',
  'Juni',
  'Kest',
  'Lind',
  'Mar',
  'Nor',
  'Oster',
  'Pell',
  'Quill',
  'Rowan',
  'Strand',
  'Thorn',
  'Umber',
  'Vester',
  'Wil',
  'Yar',
)
BRAND_ENDS = (
  'craft',
  'field',
  'ley',
  'mark',
  'mere',
  'son',
  'stead',
  'well',
  'wick',
  'worth',
  'by',
  'holm',
  'form',
  'lund',
  'row',
  'vale',
)
COLLECTIONS = (
  'Atelier',
  'Basis',
  'Compass',
  'Daybreak',
  'Evergreen',
  'Foundry',
  'Granite',
  'Heritage',
  'Island',
  'Journey',
  'Keystone',
  'Lantern',
  'Meadow',
  'North',
  'Orchard',
  'Pioneer',
  'Quarry',
  'Ridge',
  'Summit',
  'Tidal',
  'Union',
  'Village',
  'Willow',
  'Zephyr',
)
COLOURS = ('slate', 'sage', 'ochre', 'rust', 'ivory', 'indigo', 'moss', 'graphite', 'clay', 'sand')
SIZES = ('small', 'medium', 'large', 'compact', 'classic')

OPENINGS = (
  'A {noun} ({material}) for {use}.',
  'Made for {use}: a {noun}, {material}.',
  'This {noun} ({material}) has earned its place wherever there is talk of {use}.',
)
SENTENCES = (
  'It {first} and {second}.',
  'It {first}; better still, it {second}.',
  'What customers mention most: it {first}. It also {second}.',
)
CLOSINGS = (
  'Part of the {collection} collection by {brand}.',
  'Belongs to the {collection} collection of {brand}.',
  '{brand} makes it to match the rest of the {collection} collection.',
)
